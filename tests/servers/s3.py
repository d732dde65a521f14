"""What the S3 servers that tests start have in common."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret"


@dataclass(frozen=True)
class S3Server:
    """A running server; buckets are made with `bucket`."""

    endpoint_url: str
    ca_bundle: str | None = None  # a file with the authority that signed its certificate
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    def client(self) -> Any:
        """Return a plain boto3 client, with the settings of a careful stranger."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            verify=self.ca_bundle,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def bucket(self, name: str) -> str:
        """Create the bucket `name`, unless it is there, and return its name."""
        client = self.client()
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=name)
        finally:
            client.close()
        return name

    def empty(self, bucket: str) -> None:
        """Remove all of a bucket, pending uploads included."""
        client = self.client()
        try:
            for one in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
                client.abort_multipart_upload(
                    Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"]
                )
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for one in page.get("Contents", ()):
                    client.delete_object(Bucket=bucket, Key=one["Key"])
        finally:
            client.close()
