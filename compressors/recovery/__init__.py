"""Training after compression: give a smaller model back what its removal cost.

Light on purpose: import the module that you need. :mod:`compressors.recovery.config`,
:mod:`compressors.recovery.learning_curve` and :mod:`compressors.recovery.ramp` load no torch.
"""
