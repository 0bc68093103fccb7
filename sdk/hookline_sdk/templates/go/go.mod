module my-plugin

go 1.24

require hookline v0.0.0

replace hookline => ./hookline-sdk
