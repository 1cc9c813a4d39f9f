"""The job queues that Jobwire is measured beside: installed on demand, each driven through its own library."""
