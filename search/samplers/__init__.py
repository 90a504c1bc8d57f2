"""Samplers, one file each, registered in `search.plugins`.

Each takes a seed and returns an Optuna sampler for several objectives. Each trial has a new sampler
(`search.study.study.ask_trial`), in processes that start and end during a run, so every sampler
takes its history from the study's storage.
"""
