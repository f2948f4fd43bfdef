"""Parts of `experiments.sweep`: the file of jobs, the scheduler, what runs in a job."""
