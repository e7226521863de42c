"""A web page on what lies in a folder: datasets by their manifests, clips that play, trainings and evaluations.

Pages are made here for each request and need no script. `server` is the only module that knows HTTP; a page is a
function of a `Snapshot` and what stands behind the `?` of its address.
"""
