"""What the bundle says on every engine, in a process without torch. Prints one JSON object."""

import json
import sys
from dataclasses import asdict

import sdk
from samples.classify.answers import top_guesses
from samples.classify.pictures import PICTURES, preprocess


def main(path: str, threads: int) -> None:
    """Loads every program of the bundle and shows it the pictures.

    Args:
        path: the bundle.
        threads: compute threads.
    """
    images = {picture.name: preprocess(picture.open()) for picture in PICTURES}
    guesses = {}
    for program in sdk.inspect(path).manifest.programs:
        with sdk.load(path, target=program.target, threads=threads) as session:
            feed, answer = session.inputs[0].name, session.outputs[0].name
            guesses[session.device] = {
                name: [asdict(guess) for guess in top_guesses(session.run({feed: image})[answer])]
                for name, image in images.items()
            }
    assert "torch" not in sys.modules, "the runtime needs no torch, and nothing brought it in"
    sys.stdout.write(json.dumps({"guesses": guesses, "modules": len(sys.modules)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
