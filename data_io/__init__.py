"""From a folder of microscope images to a checked OME-Zarr store, and from the store to crops at memory speed.

==============  ========================================================================
`convert`       folder -> dataset.zarr, the only way a store comes into being
`readers`       what a folder holds: frames, masks, fields
`images`        one file -> one array, with every unreadable file refused in a line
`calibration`   pixel size and frame interval, where a TIFF states them with a unit
`masks`         one mask -> instance labels, with every impossible mask refused in a line
`survey`        every mask looked at once, before anything is written
`facts`         what is true of the data set as a whole
`store`         the only file that knows the paths inside dataset.zarr
`splits`        train, validation and test, by field or by time, never by crop
`normalise`     grey values -> float32, the same way in training and in prediction
`crops`         the frames in memory maps, and the crops a network is trained on
`augment`       flips, right angles, intensity and noise
`synthetic`     made-up CLL movies with exact labels
`population`    their cells: outlines, places, movement
`brightfield`   their look: contrast, optics, camera
`errors`        bad input in one line, and the exit codes
`files`         files that exist whole or not at all
`provenance`    which code, libraries and machine made a result
==============  ========================================================================
"""
