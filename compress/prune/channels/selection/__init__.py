"""Selection of the units and blocks that are kept for a target.

`prune_channels` asks `by_rank`, or, where output errors are measured, `chooser`: it compares three
methods where time and memory allow that, and keeps the best.

| module | what it does |
| --- | --- |
| `chooser` | picks the method: each one's configuration is reconstructed and evaluated |
| `by_rank` | methods 1 and 2: units of the highest scores, over all layers or by equal shares |
| `by_output_error` | method 3: channel counts and blocks of the least sum of output errors |
| `sensitivity` | the output errors that method 3 chooses by: the map that users save |
| `damage` | measures output errors: of one thinner layer, and of a whole configuration (`Judge`) |
| `allowed` | which numbers of units a group may keep; `Selection`, the record of a choice |
| `target` | what a target asks for, the least that can be met, and the errors of what cannot |
| `costs` | MACs and parameters of any choice, without building it |
| `times` | milliseconds of any choice, from measured calls |
| `measured_times` | measures these calls, and whole files beside them |

A method asks `target.cost_of` what a choice costs (`costs`, `times`, or a function of the user's),
and `allowed.allowed_for` what may be chosen.
"""
