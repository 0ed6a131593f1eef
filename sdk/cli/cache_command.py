"""`edge-sdk cache`."""

from dataclasses import asdict

import typer

from sdk.cli.screen import JsonFlag, print_json, reports_errors, stdout

cache = typer.Typer(
    help="What the runtime keeps: compiled programs, verdicts, speeds. Safe to clear.", no_args_is_help=True
)


@cache.command("list")
@reports_errors
def list_entries(as_json: JsonFlag = False) -> None:
    """List what is in the cache, the least recently used first."""
    from sdk_runtimes.compiled_cache import cache_root, entries

    found = entries()
    if as_json:
        print_json({"path": cache_root(), "entries": [asdict(entry) for entry in found]})
        return
    from datetime import UTC, datetime

    from rich.table import Table

    from sdk_runtimes.memory_sizes import format_size

    table = Table("kind", "last used (UTC)", "size", "for", box=None, header_style="bold")
    table.columns[2].justify = "right"
    for entry in found:
        used = datetime.fromtimestamp(entry.used_at, UTC).strftime("%Y-%m-%d %H:%M")
        words = [str(entry.about[key]) for key in ("name", "program", "device") if key in entry.about]
        table.add_row(entry.kind, used, format_size(entry.size_bytes), " ".join(words) or entry.key)
    console = stdout()
    console.print(f"{cache_root()}: {format_size(sum(entry.size_bytes for entry in found))}")
    console.print(table)


@cache.command("clear")
@reports_errors
def clear_entries(as_json: JsonFlag = False) -> None:
    """Remove everything from the cache; it fills again by itself."""
    from sdk_runtimes.compiled_cache import clear
    from sdk_runtimes.memory_sizes import format_size

    freed = clear()
    if as_json:
        print_json({"freed_bytes": freed})
    else:
        typer.echo(f"{format_size(freed)} freed")


@cache.command("path")
@reports_errors
def path(as_json: JsonFlag = False) -> None:
    """Print where the cache lies."""
    from sdk_runtimes.compiled_cache import cache_root

    if as_json:
        print_json({"path": cache_root()})
    else:
        typer.echo(cache_root())
