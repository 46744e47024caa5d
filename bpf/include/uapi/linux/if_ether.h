/* Asked for by BCC's prelude, used by nothing here. */
