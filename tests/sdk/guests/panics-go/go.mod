module panics-go

go 1.24

require hookline v0.0.0

replace hookline => ../../../../sdk/hookline_sdk/go
