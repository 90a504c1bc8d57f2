"""Selection of the units and blocks to keep for a target.

`prune_channels` uses `rank_selection` or, if output errors are measured, `selector`. The latter
compares three methods if time and memory allow it, and keeps the best result.

| module | content |
| --- | --- |
| `selector` | choice of the method: the result of each is reconstructed and evaluated |
| `rank_selection` | methods 1 and 2: units with the highest scores, globally or by equal shares |
| `output_error_selection` | method 3: channel counts and blocks of least total output error |
| `sensitivity` | output errors that method 3 is based on: the map that users can save |
| `output_error` | measurement of the output error of a pruned group or model (`ErrorEvaluator`) |
| `allowed_counts` | unit counts that a group may keep; `Selection`, the result of a method |
| `target` | targets as numbers, the smallest feasible cost, and errors of infeasible targets |
| `costs` | MACs and parameters of any configuration, without building it |
| `latency_model` | latency of any configuration, from measured calls |
| `latency_measurement` | measurement of these calls, and of whole models |

Each method gets its cost function from `target.resolve_cost` (`costs`, `latency_model` or a custom
function), and the unit counts to choose from by `allowed_counts.compute_allowed_counts`.
"""
