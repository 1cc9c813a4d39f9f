"""The speed benchmark: Jobwire beside its peers, what PostgreSQL itself can do, and beyond both."""
