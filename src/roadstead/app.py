"""Everything put together from settings: the one module that knows every plug.

``prepare`` runs once, in the supervisor, before any process is started; ``worker_application`` makes the ASGI
application of one worker; ``background`` is the life of the process beside them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from roadstead.augment.kept_layers import KeptLayers
from roadstead.augment.layers import prepare_rules
from roadstead.augment.ports import ImageSource
from roadstead.augment.rules import LayerSpec, Rules, RuleSpec
from roadstead.augment.service import Augmenter
from roadstead.clock import Clock, SystemClock
from roadstead.db.engine import Database, open_database
from roadstead.errors import RoadsteadError
from roadstead.http.application import Application
from roadstead.http.context import Services
from roadstead.http.routes import Router
from roadstead.http.v2.table import ROUTES as API
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.blobs import Blobs
from roadstead.registry.catalog import Catalog
from roadstead.registry.content_cache import ContentCache
from roadstead.registry.manifests import Manifests
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.registry.uploads import Uploads
from roadstead.settings.handover import Handover
from roadstead.settings.model import RuleSettings, Settings, StorageDriver, StorageSettings
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.ports import Driver, OpensFile
from roadstead.telemetry.observer import RequestObserver
from roadstead.web.table import ROUTES as PAGES

log = structlog.get_logger("roadstead")
