"""my-plugin: only some roles may read some tables."""

from __future__ import annotations

import hookline


def pre_query(query: hookline.Query) -> hookline.Answer:
    config = hookline.config()
    limited = {table.lower() for table in config["tables"]}
    roles = query["hook_context"].get("attributes", {}).get("identity.roles", "").replace(" ", "").split(",")
    for table in query["tables"]:
        if table.lower() in limited and not set(roles) & set(config.get("roles", ())):
            return hookline.block(f"{table} is not for you")
    return None


WitWorld = hookline.plugin(pre_query=pre_query)
