#!/usr/bin/env bash
# xmllint and xsltproc: a large document generated, read as a tree and as a stream, checked, searched and transformed.
# packages: libxml2-utils xsltproc
# program: xmllint
set -euo pipefail
n=20000
[ "${1:-}" != brief ] || n=1000
awk -v n="$n" 'BEGIN {
    print "<?xml version=\"1.0\"?>\n<!DOCTYPE list [<!ELEMENT list (item*)><!ELEMENT item (name, part*)><!ELEMENT name (#PCDATA)>"
    print "<!ELEMENT part (#PCDATA)><!ATTLIST item id ID #REQUIRED kind CDATA \"plain\"><!ENTITY e \"an entity\">]>\n<list>"
    for (i = 0; i < n; i++) {
        x = (x * 16807 + i) % 2147483647
        printf "<item id=\"i%d\" kind=\"%s\"><name>name %d &amp; &e;</name>", i, x % 3 ? "odd" : "even", x % 977
        for (j = 0; j < x % 4; j++) printf "<part>%d</part>", x % (j + 100)
        print "</item>"
    }
    print "</list>"
}' >data.xml
cat >style.xsl <<'EOF'
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:output method="xml" indent="yes"/>
<xsl:key name="by-name" match="item" use="name"/>
<xsl:template match="/list">
<out count="{count(item)}" sum="{sum(item/part)}">
<xsl:for-each select="item[generate-id() = generate-id(key('by-name', name)[1])]">
<xsl:sort select="name"/>
<group name="{name}"><xsl:apply-templates select="key('by-name', name)"><xsl:sort select="@id" order="descending"/></xsl:apply-templates></group>
</xsl:for-each>
</out>
</xsl:template>
<xsl:template match="item"><i><xsl:value-of select="concat(@id, ':', substring-after(name, ' '), ':', count(part))"/></i></xsl:template>
</xsl:stylesheet>
EOF
xmllint --valid --noent data.xml | sha256sum
xmllint --stream --valid data.xml
xmllint --format --c14n data.xml | sha256sum
xmllint --push --noout --memory data.xml
xmllint --xpath 'count(//item[@kind = "odd"][part > 50])' data.xml
xmllint --xpath '//item[part = 42]/name/text()' data.xml | sha256sum
xsltproc style.xsl data.xml | sha256sum
