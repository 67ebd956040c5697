"""From a folder of microscope images to a checked OME-Zarr store, and from the store to crops at memory speed.

================  ======================================================================
`convert`         a source -> dataset.zarr, the only way a store comes into being
`check`           a source or a store -> is it usable, and what it is like
`intake`          everything known of a source before its images are decoded
`readers`         what a file or folder holds: frames, annotation, fields
`images`          one file -> its frames, with every unreadable file refused in a line
`paged`           TIFF and PNG files as pages that are decoded one at a time
`damage`          what decoders raise or only log, in one line
`depth`           stacks in depth and channels: chosen or projected as the user says
`calibration`     pixel size and frame interval, where a TIFF states them with a unit
`masks`           one mask -> instance labels, with every impossible mask refused in a line
`rois`            ImageJ ROIs -> labels
`geojson`         QuPath GeoJSON -> labels
`polygons`        outlines -> labels, by ImageJ's rule
`survey`          every annotation looked at once, before anything is written
`fingerprint`     what each frame and the whole set are like, in numbers
`twins`           frames that are there twice, and leakage between parts
`recommendation`  crop, padding, batch and split, with the reasons
`facts`           what is true of the data set as a whole
`store`           the data set on disk: the only file that knows its paths
`zarr_io`         arrays with checksummed chunks that no two writers share
`unpacking`       chunks that unpack to no more than a chunk holds
`ngff`            OME-Zarr metadata, 0.4 and 0.5
`integrity`       the manifest: complete or not, damaged or not
`location`        a folder, or s3://
`job_folder`      inside a Ray job: outputs that would be gone when it ends are refused
`splits`          train, validation and test, by group, field or time, never by crop; folds
`normalise`       grey values -> float32, the same way in training and in prediction
`crops`           the frames in memory maps, and the crops a network is trained on
`stream`          crops from data sets larger than the memory
`direct`          a frame's chunk straight from its file; `buffers` memory that is used again
`crop_kernel`     one crop cut and normalised in a single pass
`augment`         crops as another camera, lamp and orientation would have given them
`warp`            any angle and elastic bending
`synthetic`       made-up CLL movies with exact labels
`population`      their cells: outlines, places, movement
`brightfield`     their look: contrast, optics, camera
`traits`          exact traits of their isolated cells
`check_page`      the page of `check`; `shots` its thumbnails
`progress`        how far a long command is
`errors`          bad input in one line, and the exit codes
`files`           files that exist whole or not at all
`provenance`      which code, libraries and machine made a result
================  ======================================================================
"""
