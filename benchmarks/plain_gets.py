"""The reference: an object read by plain parallel boto3 GETs, in a process of its own.

usage: python -m benchmarks.plain_gets ENDPOINT BUCKET KEY BYTES_PER_GET THREADS
Prints the seconds it took, without the start of Python and of the client.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config


def main() -> None:
    endpoint, bucket, key = sys.argv[1:4]
    length, threads = int(sys.argv[4]), int(sys.argv[5])
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=threads),
    )
    size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]

    def get(start: int) -> int:
        stop = min(start + length, size) - 1
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop}")
        return len(answer["Body"].read())

    begun = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        read = sum(pool.map(get, range(0, size, length)))
    took = time.monotonic() - begun
    if read != size:
        raise SystemExit(f"{read} bytes came instead of {size}")
    print(took)


if __name__ == "__main__":
    main()
