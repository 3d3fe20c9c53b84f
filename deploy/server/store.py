"""An S3-compatible object store that lasts as long as a context does: moto's, which keeps everything in memory."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from deploy.server import process

BUCKET = "mlflow"
_REGION = "us-east-1"


@dataclass(frozen=True)
class Store:
    """A running object store."""

    url: str
    key: str
    secret: str

    def variables(self) -> dict[str, str]:
        """Environment variables by which MLflow finds it."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": _REGION,
        }

    def client(self) -> Any:
        """A client of boto3."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=_REGION,
        )

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@contextmanager
def running(log: Path, variables: dict[str, str]) -> Iterator[Store]:
    """Start the store on a free port of this machine, with an empty bucket.

    Args:
        log: File that takes its output.
        variables: All its environment variables.
    """
    port = process.free_port()
    found = Store(f"http://127.0.0.1:{port}", secrets.token_hex(10).upper(), secrets.token_hex(20))
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with process.serving(
        command, ready=lambda: process.answers(found.url), log=log, variables=variables
    ):
        found.client().create_bucket(Bucket=BUCKET)
        yield found
