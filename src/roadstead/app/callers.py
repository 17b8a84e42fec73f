"""What has the layers that callers name for their tokens.

Layers that come in the request need nothing but a directory. What asks others is loaded and opened with the first who
names a place elsewhere, so that a start and a server without such tokens pay nothing for it.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from roadstead.app.plugs import CLOCK
from roadstead.augment.containers import CallersLayers
from roadstead.augment.ports import LayerStore, ReadableRegistry
from roadstead.augment.turns import Shares
from roadstead.augment.wanted_layers import MAX_LAYER_BYTES, MAX_RATIO, MAX_TAR_BYTES
from roadstead.settings.model import Settings

if TYPE_CHECKING:
    # For their types only, see above.
    from roadstead.augment.layer_sources import LayerSources
    from roadstead.augment.layers import Elsewhere

_HERE = Shares(waiting=1000, patience_s=600)
"""Layers that come in requests wait for nobody else: who asks for many gets them all, four at a time."""


class LayersOfCallers:
    """Gives them; one for each worker. `aclose` ends its connections."""

    def __init__(
        self, settings: Settings, layers: LayerStore, directory: Path, here: ReadableRegistry | None = None
    ) -> None:
        """Layers lie below `directory` while they arrive; `here` reads our own images."""
        self._here = here
        self._settings = settings
        self._layers = layers
        self._directory = directory
        self._within: LayerSources | None = None
        self._elsewhere: Elsewhere | None = None
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()

    def within(self) -> "LayerSources":
        """Return what reads layers that come in the request itself."""
        if self._within is None:
            # As above.
            from roadstead.augment.layer_sources import LayerBounds, LayerSources

            # As above.
            from roadstead.augment.sources.inline import InlineLayers

            bounds = LayerBounds(max_bytes=MAX_LAYER_BYTES, max_unpacked_bytes=MAX_TAR_BYTES, max_ratio=MAX_RATIO)
            self._within = LayerSources(
                {"data": InlineLayers()}, self._layers, self._directory / "layers", CLOCK, bounds=bounds, shares=_HERE
            )
        return self._within

    async def elsewhere(self) -> "Elsewhere":
        """Return what has the others, opened with the first call."""
        async with self._opening:
            if self._elsewhere is None:
                # As above.
                from roadstead.app.elsewhere import open_elsewhere

                opened = open_elsewhere(self._settings, self._layers, self._directory, here=self._here)
                self._elsewhere = await self._opened.enter_async_context(opened)
        return self._elsewhere

    async def aclose(self) -> None:
        """Close the connections of what was opened."""
        await self._opened.aclose()


if TYPE_CHECKING:
    _: type[CallersLayers] = LayersOfCallers
