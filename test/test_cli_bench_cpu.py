"""The table of threads and spinning, on the machine that runs the tests."""

import os

from yolojet_ros.cli.main import main


def test_every_setting_is_measured_alone_and_beside_others(capsys):
    assert main(['bench', '--cpu', '--seconds', '0.1']) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[1:2] in (['on'], ['off'])]
    cores = os.cpu_count() or 1
    assert (rows[0][:2], rows[-1][0]) == (['1,', 'off'], f'{cores},')
    assert len({tuple(row[:2]) for row in rows}) == len(rows)
    crowds = len({0, 1, cores})
    for row in rows:
        numbers = [float(text) for text in row[2:] if text != '%']
        assert len(numbers) == 3 * crowds + crowds - 1 and min(numbers) >= 0
        assert 0 < numbers[0] <= numbers[1]
