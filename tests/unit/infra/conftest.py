"""Fixtures of the infrastructure tests."""

from tests.helpers.databases import database as database
from tests.helpers.databases import database_url as database_url
from tests.helpers.databases import postgresql_server as postgresql_server
from tests.helpers.databases import postgresql_url as postgresql_url
from tests.helpers.s3 import s3_server as s3_server
from tests.helpers.s3 import s3_url as s3_url
