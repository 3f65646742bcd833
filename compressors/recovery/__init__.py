"""Training after compression: give a smaller model back what its removal cost.

Light on purpose: import the module that you need. :mod:`compressors.recovery.config` and
:mod:`compressors.recovery.racing` load no torch.
"""
