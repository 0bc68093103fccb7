module hookline

go 1.24
