"""What Jobwire knows without doing anything: jobs, queues, limits, handles, errors. No I/O, no gRPC, no SQL."""
