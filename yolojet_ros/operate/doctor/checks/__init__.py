"""The checks by area: functions from a System and Options to a Finding."""
