"""How a run is kept.

file                what it keeps of a run
------------------  --------------------------------------------------------------------------------------------------
`directories.py`    its two directories: locked while it runs, claimed by its config.json, files whole or absent
`identity.py`       what it is: flags, versions, device and git commit, which config.json records
`checkpoints.py`    its state after a step: `checkpoints/`, whole or absent, the newest few and the marked ones
`manifest.py`       what a checkpoint says of the run: its manifest, and what the logs were when it was saved
`logs.py`           its curves: metrics.csv and TensorBoard's events, in each directory
`records.py`        what it has to remember of them: the means of an epoch, the evaluations, the best checkpoint
`schedule.py`       the order of its steps, and where a number of steps taken lies in it
`pretrained.py`     its start from another run's pretraining, with --pretrained
`console.py`        what it tells its user: progress, and the table at the end
`signals.py`        its end by a signal, after the step under way
`experiment.py`     a table of runs, methods × seeds, from a TOML file; finds those that are finished
"""
