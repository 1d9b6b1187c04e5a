"""Model versions on a robot: signed, verified, activated in one step, and the way back."""

from yolojet_ros.operate.model_store.store import ModelStore
from yolojet_ros.operate.model_store.stored_model import StoredModel

__all__ = ['ModelStore', 'StoredModel']
