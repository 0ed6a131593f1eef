"""`edge-sdk inspect`."""

from dataclasses import asdict

from sdk.cli.screen import BundleArgument, JsonFlag, print_json, reports_errors, stdout


@reports_errors
def inspect(bundle: BundleArgument, as_json: JsonFlag = False) -> None:
    """Print everything a bundle says about itself, after checking every hash."""
    from sdk_runtimes.bundle import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        print_json(asdict(opened.manifest) | {"digest": opened.digest, "size_bytes": opened.size_bytes})
        return
    from sdk.cli.bundle_text import describe_bundle

    console = stdout()
    for part in describe_bundle(opened):
        console.print(part)
