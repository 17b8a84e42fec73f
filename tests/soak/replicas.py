"""Settings of servers that share one database and one bucket."""

from roadstead.testing.seaweedfs import SeaweedFS


def s3_config(s3: SeaweedFS, database_url: str) -> str:
    """Return the configuration that all replicas share: PostgreSQL, and a new bucket."""
    return f"""
[storage]
driver = "s3"
bucket = "{s3.create_bucket()}"
region = "{s3.region}"
endpoint = "{s3.endpoint}"
access_key = "{s3.access_key}"
secret_key = "{s3.secret_key}"

[database]
url = "{database_url}"
"""
