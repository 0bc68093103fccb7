package main

import (
	"fmt"
	"testing"

	"hookline"
)

func ask(t *testing.T, host *hookline.Host, table, roles string) string {
	t.Helper()
	host.Config = config{Tables: []string{"salaries"}, Roles: []string{"hr"}}
	const input = `{"query": "select 1", "tables": [%q], "hook_context": {"attributes": {"identity.roles": %q}}}`
	answer, err := host.Call(preQuery, fmt.Sprintf(input, table, roles))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestALimitedTableIsForItsRoles(t *testing.T) {
	if answer := ask(t, hookline.NewHost(), "salaries", "app"); answer != `{"action":"block","value":"salaries is not for you"}` {
		t.Error(answer)
	}
	if answer := ask(t, hookline.NewHost(), "Salaries", "app, hr"); answer != `{"action":"continue"}` {
		t.Error(answer)
	}
}

func TestOtherTablesAreForAll(t *testing.T) {
	if answer := ask(t, hookline.NewHost(), "orders", ""); answer != `{"action":"continue"}` {
		t.Error(answer)
	}
}

func TestWithoutItsSettingsItFails(t *testing.T) {
	host := hookline.NewHost()
	host.Denied = []string{"config.read"}
	if answer, err := host.Call(preQuery, `{"query": "select 1"}`); err == nil || !host.Logged("config.read") {
		t.Error(answer, err)
	}
}
