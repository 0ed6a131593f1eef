"""The core ATen form of a traced program."""

import warnings

from torch.export import ExportedProgram


def decomposed(exported: ExportedProgram) -> ExportedProgram:
    """Functional, with every op that torch can take apart taken apart; shares the weights."""
    with warnings.catch_warnings():
        # torch copies its own tree specs through a class that it has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")
        program: ExportedProgram = exported.run_decompositions()
        return program
