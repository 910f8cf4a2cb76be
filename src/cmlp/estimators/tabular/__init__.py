"""TabularClassifier and TabularRegressor: tables in, predictions out."""
