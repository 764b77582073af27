"""A SuperNode that announces replies and does not upload them while a file `haunted` lies in its working directory."""

from pathlib import Path

from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

upload = start_client_internal.push_object_contents_from_iterable


def haunt(*arguments, **options):
    """Upload nothing, once."""
    marker = Path("haunted")
    if marker.exists():
        marker.unlink()
        return None
    return upload(*arguments, **options)


start_client_internal.push_object_contents_from_iterable = haunt

if __name__ == "__main__":
    flower_supernode()
