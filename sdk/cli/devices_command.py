"""`edge-sdk devices`."""

from dataclasses import asdict

from sdk.cli.screen import JsonFlag, print_json, reports_errors, stdout


@reports_errors
def devices(as_json: JsonFlag = False) -> None:
    """List where a bundle can run on this machine, and why not elsewhere."""
    from sdk_runtimes.devices import devices as find_devices

    found = find_devices()
    if as_json:
        print_json([asdict(device) for device in found])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("device", "kind", "name", "usable", "note", box=None, header_style="bold")
    for device in found:
        usable = Text("yes", style="green") if device.usable else Text("no")
        table.add_row(device.id, device.kind, device.name, usable, device.note)
    stdout().print(table)
