"""An S3 server for every ring of tests: started once, in a process of its own."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest

__all__ = ["BUCKET", "S3Key", "limited_key", "moto_endpoint"]

BUCKET = "acidburn-test"


class S3Key(NamedTuple):
    """Credentials that the test server knows while it checks signatures and rights."""

    key_id: str
    secret: str


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server in a process of its own, with an empty bucket."""
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        endpoint = _wait_for_endpoint(log, server)
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        client.create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)


def _wait_for_endpoint(log: Path, server: "subprocess.Popen[bytes]") -> str:
    for _ in range(600):
        found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if found:
            return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")


@pytest.fixture
def limited_key(moto_endpoint: str) -> Iterator[S3Key]:
    """A key that may read, write and list but not delete; signatures are checked meanwhile."""
    name = f"user{time.monotonic_ns()}"
    iam = boto3.client(
        "iam",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    iam.create_user(UserName=name)
    rights = ["s3:GetObject", "s3:PutObject", "s3:ListBucket"]
    statement = {"Effect": "Allow", "Action": rights, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="limited", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    _check_rights(moto_endpoint, after="0")
    try:
        yield S3Key(key["AccessKeyId"], key["SecretAccessKey"])
    finally:
        _check_rights(moto_endpoint, after="inf")


def _check_rights(endpoint: str, *, after: str) -> None:
    """Makes the server check signatures and rights after so many requests."""
    url = f"{endpoint}/moto-api/reset-auth"
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(url, after.encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass
