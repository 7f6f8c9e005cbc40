"""Passes: functions from graph to graph. A pass that changes nothing returns the same object."""
