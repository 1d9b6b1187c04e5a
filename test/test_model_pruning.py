"""Pruning: the promised counts, and nothing lost but what was removed."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip('torch')

from model_samples import trained_model  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.model import checkpoint  # noqa: E402
from yolojet_ros.model.pruning import (  # noqa: E402
    multiply_accumulates, prunable_layers, prune)
from yolojet_ros.model.yolov8 import Detector, parameter_count  # noqa: E402


def test_reference_case_meets_its_parameter_count():
    network = trained_model().network
    pruned = prune(network, parameters=2_870_413)
    assert parameter_count(network) == 3_012_213
    assert parameter_count(pruned) == 2_870_413
    hidden = [(a.channels, b.channels) for a, b in zip(
        prunable_layers(network), prunable_layers(pruned)) if a.hidden]
    assert len(hidden) == 10
    share = 1 - sum(b for _, b in hidden) / sum(a for a, _ in hidden)
    assert share == pytest.approx(0.14, abs=0.01)
    assert multiply_accumulates(pruned, 96, 64) < multiply_accumulates(network, 96, 64)


@pytest.mark.parametrize('criterion', ['bn', 'l1'])
@pytest.mark.parametrize('goal', [{'ratio': 0.25}, {'parameters': 2_700_001}])
def test_a_pruned_network_is_the_whole_one_with_silent_channels(criterion, goal):
    network = trained_model().network
    pruned = prune(network, criterion=criterion, **goal)
    silent = copy.deepcopy(network)
    for layer, left in zip(prunable_layers(silent), prunable_layers(pruned)):
        gone = layer.weakest(criterion)[:layer.channels - left.channels]
        with torch.no_grad():
            layer.unit.norm.weight[gone] = 0
            layer.unit.norm.bias[gone] = 0  # SiLU(0) = 0: the channel says nothing
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(
            Detector(pruned)(images), Detector(silent.eval())(images), atol=1e-3)


def test_the_weakest_channels_go():
    network = trained_model().network
    layer = prunable_layers(network)[3]
    with torch.no_grad():
        layer.unit.norm.weight[:] = torch.arange(layer.channels, 0, -1)
    assert layer.weakest('bn')[:2] == [layer.channels - 1, layer.channels - 2]


def test_a_pruned_network_can_be_saved_loaded_and_trained(tmp_path):
    model = trained_model()
    model.network = prune(model.network, ratio=0.3)
    checkpoint.save(model, tmp_path / 'p.pt')
    again = checkpoint.load(tmp_path / 'p.pt').network
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(Detector(again.eval())(images), Detector(model.network)(images))
    again.train()(torch.rand(2, 3, 64, 96))[0].mean().backward()
    assert not again.bins.requires_grad
    assert parameter_count(again) == parameter_count(model.network)


@pytest.mark.parametrize('goal, reason', [
    ({}, 'either a ratio'), ({'ratio': 0.2, 'parameters': 5}, 'either a ratio'),
    ({'ratio': 0.0}, 'above 0'), ({'ratio': 0.95}, 'at most 0.8'),
    ({'parameters': 4_000_000}, 'can take'), ({'parameters': 1000}, 'can take'),
    ({'ratio': 0.1, 'criterion': 'x'}, 'no criterion')])
def test_impossible_goals_are_refused(goal, reason):
    with pytest.raises(UserError, match=reason):
        prune(trained_model().network, **goal)
