"""Run a temporary S3-compatible object store: moto's server, which keeps all objects in memory."""

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

    def client_env(self) -> dict[str, str]:
        """Return the environment variables that an MLflow client of the store needs."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": _REGION,
        }

    def client(self) -> Any:
        """Return a boto3 client of the store."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=_REGION,
        )

    def read_objects(self) -> dict[str, bytes]:
        """Return the content of every object in the bucket, by key."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@contextmanager
def run_store(log: Path, variables: dict[str, str]) -> Iterator[Store]:
    """Run the store on a free port of 127.0.0.1, with an empty bucket, until the context ends.

    Args:
        log: File for the output of the store.
        variables: All environment variables of the store.
    """
    port = process.find_free_port()
    store = Store(f"http://127.0.0.1:{port}", secrets.token_hex(10).upper(), secrets.token_hex(20))
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with process.run_server(
        command, ready=lambda: process.is_reachable(store.url), log=log, variables=variables
    ):
        store.client().create_bucket(Bucket=BUCKET)
        yield store
