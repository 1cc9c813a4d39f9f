"""The only place that knows SQL: typed functions over the statements in `sql/`, the migrations, the connections."""
