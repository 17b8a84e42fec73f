"""The settings of a registry that is there, for commands that look into it beside its server."""

import os
from pathlib import Path

import typer

from roadstead.errors import NotFoundError
from roadstead.settings.load import LoadedSettings, load
from roadstead.settings.model import Settings, StorageDriver
from roadstead.settings.origin import OriginKind

BY_DEFAULT = "by the default settings: no configuration was named"


class DataMissingError(NotFoundError):
    """No data directory is where settings say."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no data directory at {path}")
        self.path = path

    def advice(self) -> str:
        """Say where the right one is named."""
        return "Name the one that the server uses: with its settings file, or with --data DIR."


def load_existing(config: Path | None, data: Path | None) -> Settings:
    """Return the settings, with `data` as storage.path if it is given; DataMissingError if nothing is there."""
    settings = configured(config, data)
    require_data(settings)
    return settings


def load_named(config: Path | None, data: Path | None) -> Settings:
    """Do what `load_existing` does, and say on standard error which registry it is where nobody has named one."""
    loaded = _loaded(config, data)
    require_data(loaded.settings)
    if config is None and rests_on_defaults(loaded, "storage", "database"):
        typer.echo(f"{BY_DEFAULT}; the data is in {loaded.settings.storage.path}", err=True)
    return loaded.settings


def configured(config: Path | None, data: Path | None) -> Settings:
    """Return the settings, with `data` as storage.path if it is given, whether anything is there or not."""
    return _loaded(config, data).settings


def configured_for(config: Path | None, data: Path | None, section: str) -> tuple[Settings, bool]:
    """Return what `configured` does, and whether a section is as it is by default because nobody named a file."""
    loaded = _loaded(config, data)
    return loaded.settings, config is None and rests_on_defaults(loaded, section)


def rests_on_defaults(loaded: LoadedSettings, *sections: str) -> bool:
    """Say whether nothing was said of these sections, neither in a file nor in the environment. Pure."""
    return all(
        origin.kind is OriginKind.DEFAULT for key, origin in loaded.origins.items() if key.partition(".")[0] in sections
    )


def configured_by_name(config: Path | None, data: Path | None) -> Settings:
    """Return the settings of a registry that may not be there yet, if somebody has named where it shall be.

    DataMissingError where nobody has and nothing is at the default place: a new registry beside the one that is meant
    would be found by nobody.
    """
    loaded = _loaded(config, data)
    if loaded.origins["storage.path"].kind is OriginKind.DEFAULT:
        require_data(loaded.settings)
    return loaded.settings


def _loaded(config: Path | None, data: Path | None) -> LoadedSettings:
    overrides = {} if data is None else {"storage.path": str(data)}
    return load(config, environment=os.environ, overrides=overrides)


def require_data(settings: Settings) -> None:
    """Raise DataMissingError if images are kept in a directory and it isn't there: opening it would make it."""
    storage = settings.storage
    if storage.driver is StorageDriver.FILESYSTEM and not storage.path.is_dir():
        raise DataMissingError(storage.path)
