"""Resources that users declare: kinds, models, validation and the two written forms. Data only, no I/O."""
