module sql-lint

go 1.24
