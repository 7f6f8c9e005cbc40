"""How far elementary functions are from the exact values: measured by `measure.py`, guarded by `test_ulp.py`."""
