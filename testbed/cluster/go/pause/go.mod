module hookline.dev/cluster/pause

go 1.24
