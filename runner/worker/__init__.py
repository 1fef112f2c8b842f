"""The half that runs beside the engine: scheduler, lanes, prefix index, chat template and detokeniser."""
