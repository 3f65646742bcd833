"""What every branch of a model may become, what that costs in error, and models put together from such parts.

Nothing is imported here: :mod:`compressors.options.levels` is read by processes that do without torch.
"""
