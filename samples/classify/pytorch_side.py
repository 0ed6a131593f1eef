"""What PyTorch itself says and costs, in a process of its own. Prints one JSON object."""

import json
import sys
import time
from dataclasses import asdict

from sdk.peak_memory import peak_rss_bytes


def main(threads: int) -> None:
    """Loads the network, looks at the pictures, tells times and memory.

    Args:
        threads: compute threads.
    """
    start = time.perf_counter()
    import torch

    from samples.classify.answers import top_guesses
    from samples.classify.network import build
    from samples.classify.pictures import PICTURES, preprocess

    torch.set_num_threads(threads)
    imported = time.perf_counter()
    network = build()
    loaded = time.perf_counter()
    images = [torch.from_numpy(preprocess(picture.open())) for picture in PICTURES]  # not counted
    ready = time.perf_counter()
    with torch.inference_mode():
        first = network(images[0])
        ran = time.perf_counter()
        logits = [first, *(network(image) for image in images[1:])]
    phases = {
        "import_ms": (imported - start) * 1e3,
        "load_ms": (loaded - imported) * 1e3,
        "first_run_ms": (ran - ready) * 1e3,
    }
    guesses = {
        picture.name: [asdict(guess) for guess in top_guesses(row.numpy())]
        for picture, row in zip(PICTURES, logits, strict=True)
    }
    cold_start = phases | {"total_ms": sum(phases.values()), "peak_rss_bytes": peak_rss_bytes()}
    sys.stdout.write(json.dumps({"guesses": guesses, "cold_start": cold_start}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
