"""Training: deterministic, resumable, and its augmentation keeps boxes on objects."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('pycocotools')

from model_samples import SIZE, trained_model  # noqa: E402
from yolojet_ros.cli.main import main  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.model import checkpoint  # noqa: E402
from yolojet_ros.model.bank import ImageBank, Recipe  # noqa: E402
from yolojet_ros.model.data import SEEDS_PER_RUN  # noqa: E402
from yolojet_ros.model.losses import Targets  # noqa: E402
from yolojet_ros.model.training import MovingAverage, Trainer, TrainingPlan  # noqa: E402

_PLAN = {'stills': 6, 'batch': 4, 'warmup': 2, 'validation_stills': 2, 'validate_every': 0}


def _weights(path):
    return checkpoint.load(path).network.state_dict()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    plan = TrainingPlan(steps=4, **_PLAN)
    Trainer(trained_model(), plan, 'cpu').run(tmp_path / 'whole.pt')

    trainer = Trainer(trained_model(), plan, 'cpu')
    with monkeypatch.context() as patch:
        def stop(_, step=Trainer._train_step):
            if trainer.step == 2:
                checkpoint.save(trainer.snapshot(), tmp_path / 'part.pt')
                raise KeyboardInterrupt
            return step(trainer, _)
        patch.setattr(trainer, '_train_step', stop)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(tmp_path / 'part.pt')
    part = checkpoint.load(tmp_path / 'part.pt')
    assert part.state['step'] == 2
    Trainer(part, plan, 'cpu').run(tmp_path / 'part.pt')

    whole, resumed = _weights(tmp_path / 'whole.pt'), _weights(tmp_path / 'part.pt')
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not checkpoint.load(tmp_path / 'part.pt').state
    assert checkpoint.load(tmp_path / 'part.pt').recipe['training'].startswith('4 steps of 4')


def _interrupted(path, **changes):
    """Leave what an interrupted command leaves at `path`, after two steps."""
    plan = TrainingPlan(**{**_PLAN, 'steps': 4, 'seed': 3, 'batch': 2, **changes})
    trainer = Trainer(trained_model(), plan, 'cpu')
    bank = ImageBank.render(plan.stills, 1 + plan.seed * SEEDS_PER_RUN, SIZE, 'cpu', 0)
    for trainer.step in range(2):
        trainer._train_step(bank)
    trainer.step = 2
    checkpoint.save(trainer.snapshot(), path)
    return plan


def test_a_resumed_command_keeps_the_plan_that_it_was_begun_with(tmp_path):
    path = tmp_path / 'p.pt'
    plan = _interrupted(path)
    assert main(['model', 'train', str(path), '--resume', '--workers', '0', '--device', 'cpu',
                 '--validation-stills', '1']) == 0
    Trainer(trained_model(), plan, 'cpu').run(tmp_path / 'whole.pt')
    whole, resumed = _weights(tmp_path / 'whole.pt'), _weights(path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    recipe = checkpoint.load(path).recipe
    assert recipe['training'].startswith('4 steps of 2,')
    assert recipe['data'].endswith('6 stills, seed 3')


@pytest.mark.parametrize('words, text', [
    (('--seed', '4'), '--seed is 4, but this training was begun with 3'),
    (('--batch', '64'), '--batch is 64, but this training was begun with 2'),
    (('--steps', '9'), '--steps is 9'), (('--size', '320x192'), '--size is 320x192'),
    (('--variant', 's'), '--variant is s'), (('--weights', 'x.pt'), '--weights is x.pt')])
def test_a_resumed_command_refuses_another_plan(words, text, tmp_path, capsys):
    path = tmp_path / 'p.pt'
    _interrupted(path)
    before = path.read_bytes()
    capsys.readouterr()
    assert main(['model', 'train', str(path), '--resume', '--device', 'cpu', *words]) == 2
    message = capsys.readouterr().err
    assert text in message and message.count('\n') == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize('change, text', [
    (lambda state: state.pop('plan'), 'holds no plan'),
    (lambda state: state.update(plan={'steps': 'x'}), 'holds no plan'),
    (lambda state: state['plan'].update(steps=0), 'steps is 0'),
    (lambda state: state.pop('optimizer'), 'cannot go on'),
    (lambda state: state.update(network={}), 'cannot go on')])
def test_a_damaged_state_is_refused_in_one_sentence(change, text, tmp_path, capsys):
    path = tmp_path / 'p.pt'
    _interrupted(path)
    model = checkpoint.load(path)
    change(model.state)
    checkpoint.save(model, path)
    capsys.readouterr()
    assert main(['model', 'train', str(path), '--resume', '--device', 'cpu']) == 2
    message = capsys.readouterr().err
    assert text in message and message.count('\n') == 1


def test_another_seed_trains_other_weights(tmp_path):
    for seed in (0, 1):
        plan = TrainingPlan(steps=1, seed=seed, **_PLAN)
        Trainer(trained_model(), plan, 'cpu').run(tmp_path / f'{seed}.pt')
    a, b = _weights(tmp_path / '0.pt'), _weights(tmp_path / '1.pt')
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_time_limit_ends_the_schedule(tmp_path):
    plan = TrainingPlan(steps=10_000, max_minutes=0.02, **_PLAN)
    trainer = Trainer(trained_model(), plan, 'cpu')
    trainer.run(tmp_path / 'short.pt')
    assert 0 < trainer.step < 1000


def test_every_still_comes_once_before_any_comes_again():
    trainer = Trainer(trained_model(), TrainingPlan(steps=9, **{**_PLAN, 'batch': 4}), 'cpu')
    seen = []
    for trainer.step in range(6):
        seen += trainer._indices(8).tolist()
    for epoch in range(3):
        assert sorted(seen[8 * epoch:8 * epoch + 8]) == list(range(8))
    assert seen[:8] != seen[8:16]


def test_moving_average_follows_weights_and_statistics():
    network = trained_model().network
    average = MovingAverage(network, 0.5)
    with torch.no_grad():
        network.stage1.norm.running_mean += 1
        network.stage1.conv.weight += 1
    before = average.network.stage1.norm.running_mean.clone()
    for step in range(20_000, 20_020):
        average.update(network, step)
    assert torch.allclose(average.network.stage1.norm.running_mean, before + 1, atol=1e-3)
    assert torch.allclose(
        average.network.stage1.conv.weight, network.stage1.conv.weight, atol=1e-3)


def _painted_bank() -> ImageBank:
    """Return a bank of one image: a white rectangle on padding gray, boxed exactly."""
    images = torch.full((1, 3, 64, 96), 114, dtype=torch.uint8)
    images[:, :, 20:40, 10:50] = 255
    return ImageBank(images, Targets(
        torch.tensor([[[10.0, 20, 50, 40], [0, 0, 0, 0]]]), torch.zeros(1, 2, dtype=torch.long),
        torch.tensor([[True, False]])))


@pytest.mark.parametrize('seed', range(8))
def test_moved_boxes_stay_on_what_they_bound(seed):
    bank = _painted_bank()
    recipe = Recipe(flip=0.5, zoom=1.0, scale=0.2, shift=0.1, color=0.0, noise=0.0)
    images, targets = bank.batch(
        torch.tensor([0]), recipe, torch.Generator().manual_seed(seed))
    bright = (images[0, 0] > 0.72).nonzero()
    x1, y1, x2, y2 = targets.boxes[0, 0].tolist()
    assert abs(bright[:, 1].min() - x1) <= 1 and abs(bright[:, 1].max() + 1 - x2) <= 1
    assert abs(bright[:, 0].min() - y1) <= 1 and abs(bright[:, 0].max() + 1 - y2) <= 1
    assert targets.learn.tolist() == [[True, False]]


def test_without_augmentation_an_image_stays_what_it_is():
    bank = _painted_bank()
    images, targets = bank.batch(
        torch.tensor([0]), Recipe(0.0, 0.0, 0.0, 0.0, 0.0, 0.0), torch.Generator())
    assert torch.allclose(images, bank.images.float() / 255, atol=1e-4)
    assert torch.allclose(targets.boxes, bank.targets.boxes, atol=1e-3)


def test_an_object_that_is_mostly_moved_out_is_not_to_be_learned():
    bank = _painted_bank()
    recipe = Recipe(flip=0.0, zoom=1.0, scale=0.0, shift=0.5, color=0.0, noise=0.0)
    kept = set()
    for seed in range(40):
        _, targets = bank.batch(torch.tensor([0]), recipe, torch.Generator().manual_seed(seed))
        box = targets.boxes[0, 0]
        share = float((box[2:] - box[:2]).prod()) / 800
        learn = bool(targets.learn[0, 0])
        assert learn == (share > 0.4) or abs(share - 0.4) < 0.01
        kept.add(learn)
    assert kept == {True, False}


def test_impossible_plans_are_refused():
    with pytest.raises(UserError, match='steps is 0'):
        TrainingPlan(steps=0)
    with pytest.raises(UserError, match='seed is 100'):
        TrainingPlan(seed=100)
