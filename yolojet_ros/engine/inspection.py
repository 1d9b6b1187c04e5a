"""Open an engine to look into it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence, Union

import numpy as np

from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.engine import model_facts, verify
from yolojet_ros.engine.verify import Verdict
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.tensorrt_backend import TensorRTBackend
from yolojet_ros.inference.tensorrt_network import Network
from yolojet_ros.inference.tensorrt_session import Session


@dataclass
class OpenEngine:
    """An engine, its card if there is one, and a session to run it."""

    path: Path
    card: Optional[EngineCard]
    backend: TensorRTBackend
    session: Session

    @property
    def network(self) -> Network:
        """Return the deserialized engine."""
        return self.backend.network


@contextmanager
def opened(
    path: Union[str, Path], device: int = 0, plugins: Sequence[str] = (),
) -> Iterator[OpenEngine]:
    """
    Load an engine as the runtime does, with its device current.

    :raises UserError: if it cannot be loaded or run here.
    """
    path = Path(path)
    try:
        backend = TensorRTBackend(path, device, plugins=plugins)
        try:
            with backend.device.current():
                backend.free_slots()  # an engine may allow only one context at once
                session = Session(backend.device, backend.network, backend.heads)
                try:
                    yield OpenEngine(path, EngineCard.load(path), backend, session)
                finally:
                    session.close()
        finally:
            backend.close()
    except BackendError as error:
        raise UserError(f'{path.name}: {error}') from error


def verify_engine(
    engine: OpenEngine, onnx: Optional[str], images: str, count: int, reference: Optional[str],
) -> Verdict:
    """
    Compare an engine with the model that it was built from.

    :raises UserError: if that model is not known or is another one.
    """
    card = engine.card
    if card is None:
        raise UserError(
            f'{engine.path.name} has no .json beside it, so its precision and its model are not '
            'known; build it with "yolojet engine build"')
    onnx = onnx or card.onnx
    facts = model_facts.read(onnx)
    if facts.sha256 != card.onnx_sha256:
        raise UserError(
            f'{engine.path.name} was not built from {onnx} as it is now; give its model with '
            f'--onnx, or build it again with: {card.rebuild_command}')
    expected = verify.reference_for(
        onnx, facts.sha256, facts.card, images, reference, count)
    return verify.verify(
        engine.session, expected, facts.card, engine.backend.card, card.precision)
