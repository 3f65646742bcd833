"""Writers of the deployable forms of an :class:`compressors.network.EncoderNetwork`."""
